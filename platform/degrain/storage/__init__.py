"""Local folders and S3 buckets, retries, and the lease that prevents concurrent jobs."""
