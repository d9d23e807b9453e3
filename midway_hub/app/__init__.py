"""Pages that show the network at work, written as plain HTML files or served in the browser."""
