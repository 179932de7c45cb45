"""`degrain serve`: photos over HTTP, and a web page, as a Ray Serve application."""
