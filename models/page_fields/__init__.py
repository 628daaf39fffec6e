"""Where the values of JSON text come from: which words of which page, and how sure they are."""
