"""What a patch set's photos are like: facts of each pair, figures of all, and a page to look at."""
