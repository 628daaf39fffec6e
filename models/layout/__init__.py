"""What the parts of a page are: text, titles, tables, pictures and the like."""
