"""The tabs of the page, one per file: each builds its controls and says what they do."""
