"""Storage of files in a directory or a bucket, behind one small protocol."""
