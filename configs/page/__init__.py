"""The page of `dp360 serve`: a queue of heads that outlives the server, its HTTP interface, and the page itself."""
