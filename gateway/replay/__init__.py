"""``./run replay``: the rows of a CSV file as usage, over the HTTP API, as often as you like."""
