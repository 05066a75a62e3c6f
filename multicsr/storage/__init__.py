"""Where bytes lie: a directory or a bucket, behind one small protocol."""
