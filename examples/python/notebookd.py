"""Connects to notebookd.

It asks the server for the contract (server reflection), so that there is nothing
to generate and nothing to copy but this file. grpcio and protobuf are all that it
needs. Whoever wants types in an editor makes stubs of proto/ instead, with
grpcio-tools, and calls those in the same way.

    NOTEBOOKD_ADDRESS  default localhost:9090
    NOTEBOOKD_TOKEN    bearer token, if the server wants one
    NOTEBOOKD_CA       file with the CA of a server with TLS; without it, no TLS
"""

import functools
import os

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

# Errors that come again however often one tries.
PERMANENT = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
)


class Service:
    """A connection to one service of the server; end it with `with`.

    Its methods have the names of the contract, take the fields of the request,
    and `timeout`. `as_dict` makes the JSON of the REST door of an answer.
    """

    def __init__(self, name="notebook.v1.NotebookService"):
        address = os.environ.get("NOTEBOOKD_ADDRESS", "localhost:9090")
        ca, token = os.environ.get("NOTEBOOKD_CA"), os.environ.get("NOTEBOOKD_TOKEN")
        if ca:
            with open(ca, "rb") as file:
                self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(file.read()))
        else:
            self._channel = grpc.insecure_channel(address)
        self._metadata = [("authorization", "Bearer " + token)] if token else []
        try:
            # google.rpc.Status and what is in it are what errors are made of.
            symbols = [name, "google.rpc.Status", "google.rpc.ErrorInfo", "google.rpc.PreconditionFailure"]
            self._pool = _reflect(self._channel, self._metadata, symbols)
        except Exception:
            self._channel.close()
            raise
        for method in self._pool.FindServiceByName(name).methods:
            proto = descriptor_pb2.MethodDescriptorProto()
            method.CopyToProto(proto)
            kind = self._channel.unary_stream if proto.server_streaming else self._channel.unary_unary
            request, answer = _message(method.input_type), _message(method.output_type)
            call = kind("/%s/%s" % (name, method.name), request.SerializeToString, answer.FromString)
            setattr(self, method.name, functools.partial(self._call, call, request))

    def _call(self, call, request, timeout=None, **fields):
        # ParseDict takes durations as "30s" and enums by their names, as JSON has them.
        message = json_format.ParseDict(fields, request(), descriptor_pool=self._pool)
        return call(message, timeout=timeout, metadata=self._metadata)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._channel.close()

    @staticmethod
    def as_dict(message):
        return json_format.MessageToDict(message)

    def details(self, error):
        """What is in an error beside code and text, by type: {"ErrorInfo": {"reason": …}, …}."""
        found = {}
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                status = _message(self._pool.FindMessageTypeByName("google.rpc.Status")).FromString(value)
                for detail in status.details:
                    try:
                        kind = self._pool.FindMessageTypeByName(detail.type_url.split("/")[-1])
                    except KeyError:
                        continue  # of a kind that nobody asks for here
                    found[kind.name] = json_format.MessageToDict(_message(kind).FromString(detail.value))
        return found

    def reason(self, error):
        """The reason of an error, which programs go by, or its code."""
        return self.details(error).get("ErrorInfo", {}).get("reason") or error.code().name


def _message(descriptor):
    """The class of a message. The function for it has another name since protobuf 4.22."""
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(descriptor.file.pool).GetPrototype(descriptor)


def _reflect(channel, metadata, symbols):
    """Asks the server for the files that define symbols."""
    # The three messages of the protocol, with the fields that are needed.
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="reflection.proto", package="reflection", syntax="proto3")
    file.message_type.add(name="Request").field.add(
        name="file_containing_symbol", number=4, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    file.message_type.add(name="Files").field.add(
        name="file", number=1, type=field.TYPE_BYTES, label=field.LABEL_REPEATED)
    file.message_type.add(name="Answer").field.add(
        name="files", number=4, type=field.TYPE_MESSAGE, type_name=".reflection.Files", label=field.LABEL_OPTIONAL)
    own = descriptor_pool.DescriptorPool()
    own.AddSerializedFile(file.SerializeToString())
    request, answer = (_message(own.FindMessageTypeByName("reflection." + name)) for name in ("Request", "Answer"))

    call = channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", request.SerializeToString, answer.FromString)
    files = {}
    for reply in call(iter([request(file_containing_symbol=s) for s in symbols]), timeout=20, metadata=metadata):
        for data in reply.files.file:
            files[descriptor_pb2.FileDescriptorProto.FromString(data).name] = data

    pool = descriptor_pool.DescriptorPool()

    def add(name):  # what a file imports goes first
        data = files.pop(name, None)
        if data is not None:
            for imported in descriptor_pb2.FileDescriptorProto.FromString(data).dependency:
                add(imported)
            pool.AddSerializedFile(data)

    for name in list(files):
        add(name)
    return pool
