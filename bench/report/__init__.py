"""The report: tables, figures and a page, a pure function of the rows."""
