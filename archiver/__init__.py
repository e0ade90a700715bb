"""The DynamoDB archiver: old items go to S3 as JSON, leave the table once that is proven, and can come back."""
