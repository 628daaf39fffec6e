"""Pages that have been read, written as the formats that people use: pure functions."""
