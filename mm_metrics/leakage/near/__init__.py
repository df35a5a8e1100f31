"""Near copies: a kind of input each, text, image and audio; `kinds` says which module compares what."""
