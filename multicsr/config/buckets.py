"""Access to buckets."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from multicsr.config.section import Section


class S3Config(Section):
    """Access to buckets. Credentials are not a setting: they come from the standard AWS chain."""

    endpoint: str | None = None
    """URL of a server other than AWS, such as http://minio:9000; unset: AWS, or AWS_ENDPOINT_URL."""
    region: str | None = None
    """Region; unset: that of the AWS chain."""
    encryption: Literal["AES256", "aws:kms"] | None = None
    """Server-side encryption of written objects; unset: the default of the bucket."""
    kms_key: str | None = None
    """Key for `aws:kms`; unset: the key of the account."""
    requester_pays: bool = False
    """Pay for requests to the bucket instead of its owner."""
    read_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds without data from the server after which a request is repeated."""

    @model_validator(mode="after")
    def _consistent(self) -> "S3Config":
        if self.kms_key is not None and self.encryption != "aws:kms":
            raise ValueError("kms_key has no effect without encryption: aws:kms")
        if self.endpoint is not None and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError("endpoint begins with http:// or https://")
        if self.endpoint is not None and ({"@", "?", "#"} & {*self.endpoint}):
            raise ValueError(
                "endpoint is a plain URL such as http://minio:9000; credentials belong into "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or the machine's role"
            )
        return self
