"""One function per verb: read, call the library, write."""
