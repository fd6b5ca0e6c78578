"""What a reader sees of an evaluation: tables, figures, the page, and the words that explain them."""
