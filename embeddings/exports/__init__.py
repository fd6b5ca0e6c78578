"""The hits of a search in the formats that other programs read."""
