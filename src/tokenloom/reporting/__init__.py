"""What a run shows to people: on the terminal while it trains, as pictures, and as one page to keep."""
