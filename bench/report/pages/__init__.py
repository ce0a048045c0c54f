"""Tables and pages: HTML, Markdown, TeX and spreadsheets."""
