"""What a sweep found, as one page that stands alone, as Markdown and as CSV. It reads records, not code."""
