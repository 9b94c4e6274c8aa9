"""Loading and saving of language models, heads, chat templates, packed forward passes."""
