"""Real video that ships inside the package; `SOURCES.md` beside it says whence and under which licence."""
