"""Where the points of a sweep are evaluated; who asks for them does not know."""
