"""What makes the tables of docs/ and measures how exact the pairs are; not in the wheel."""
