"""The measures behind the README's performance table, one file a claim."""
