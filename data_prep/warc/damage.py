"""Stable names of damage in a WARC file: the `reason` of a Damage."""

DAMAGED_MEMBER = "damaged_gzip_member"  # or zstd frame
CUT_OFF = "cut_off"
NO_RECORD = "no_record_here"
BAD_WARC_HEADER = "bad_warc_header"
WRONG_LENGTH = "wrong_content_length"
TOO_LARGE = "record_too_large"
WRONG_BLOCK = "wrong_block_digest"
WRONG_PAYLOAD = "wrong_payload_digest"
BAD_HTTP_HEADER = "bad_http_header"
UNDECODABLE = "undecodable_body"
SEGMENTED = "segmented_record"
