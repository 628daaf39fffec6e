"""Models that read pages as such: Donut from pixels, the LayoutLM family from words and places."""
