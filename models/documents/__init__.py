"""Documents of pages: PDF files and images of one or several frames."""
