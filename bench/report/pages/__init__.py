"""Tables and pages: HTML, Markdown and TeX."""
