"""From file to file: one scan, many scans, many machines; with a record beside each result."""
