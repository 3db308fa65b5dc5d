"""Model surgery: which layers a recipe means, what is folded, what is replaced, and a report of all of it."""
