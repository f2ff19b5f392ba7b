"""The server: models that complete, score and explain text over HTTP, and the runs that train them."""
