"""Just enough protobuf to read what kubectl insists on sending in it: the reviews of `kubectl auth`."""

from collections.abc import Iterator

from deploy.sandbox.errors import bad_request, unsupported_media_type
from deploy.sandbox.resources import Document

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"
LENGTH_DELIMITED = 2
# Field numbers of authorization.k8s.io/v1, from the published .proto files.
RESOURCE_ATTRIBUTES = ("namespace", "verb", "group", "version", "resource", "subresource", "name")
NON_RESOURCE_ATTRIBUTES = ("path", "verb")


def decode_review(body: bytes) -> Document:
    """A SelfSubjectAccessReview or SelfSubjectReview. Raises ApiError 415 for others, 400 for nonsense."""
    if not body.startswith(MAGIC):
        raise bad_request("the request's body is not a Kubernetes protobuf message")
    try:
        envelope = dict(_fields(body[len(MAGIC) :]))
        kind = dict(_fields(envelope.get(1, b""))).get(2, b"").decode()
        if kind == "SelfSubjectReview":
            return {}
        if kind == "SelfSubjectAccessReview":
            return {"spec": _access_spec(dict(_fields(envelope.get(2, b""))).get(2, b""))}
    except (IndexError, ValueError) as error:
        raise bad_request(f"the request's protobuf body cannot be read: {error}") from error
    raise unsupported_media_type(
        f"this API server reads {kind} as JSON only, which is what `kubectl create -f FILE` sends"
    )


def _access_spec(message: bytes) -> Document:
    fields = dict(_fields(message))
    spec: Document = {}
    if 1 in fields:
        spec["resourceAttributes"] = _texts(fields[1], RESOURCE_ATTRIBUTES)
    if 2 in fields:
        spec["nonResourceAttributes"] = _texts(fields[2], NON_RESOURCE_ATTRIBUTES)
    return spec


def _texts(message: bytes, names: tuple[str, ...]) -> Document:
    # Later versions have added fields behind these; nobody here asks for them.
    return {names[number - 1]: value.decode() for number, value in _fields(message) if number <= len(names)}


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a message: strings and messages are all that reviews are made of."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        value, position = _varint(message, position)
        if tag & 7 == LENGTH_DELIMITED:
            yield tag >> 3, message[position : position + value]
            position += value
        elif tag & 7 != 0:
            raise ValueError(f"wire type {tag & 7}")


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
