"""Stores in object storage, such as S3: what is finished in a bucket, work in a folder here."""
