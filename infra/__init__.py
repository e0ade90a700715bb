"""The platform on AWS, one Pulumi program for every stack."""
