# syntax=docker/dockerfile:1
# The image of notebookd: the static programs, certificates of authorities, and
# nothing else. See docs/deployment.md.

# Pin it in a build that is to be repeated: --build-arg GO_IMAGE=golang@sha256:…
ARG GO_IMAGE=golang:1.26-bookworm

FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS=linux
ARG TARGETARCH=amd64
ARG VERSION=v0.0.0-dev
ARG COMMIT=unknown
ARG DATE=1970-01-01T00:00:00Z
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    go run ./internal/tools/release -binaries -out /out \
    -platforms "${TARGETOS}/${TARGETARCH}" -version "${VERSION}" -commit "${COMMIT}" -date "${DATE}"
# A volume has the owner that its directory has in the image.
RUN install -d -o 65532 -g 65532 -m 0700 /data

FROM scratch
ARG VERSION=v0.0.0-dev
ARG COMMIT=unknown
ARG DATE=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="notebookd" \
      org.opencontainers.image.description="One API over the GPU notebooks of several AI clouds" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.created="${DATE}"
# The clouds are asked over HTTPS.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/server /server
COPY --from=build /data /var/lib/notebookd
# A number: Kubernetes cannot see of a name that it is not root.
USER 65532:65532
VOLUME /var/lib/notebookd
# gRPC, HTTP
EXPOSE 9090 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/server", "healthcheck", "-config", "/etc/notebookd/notebookd.yaml"]
ENTRYPOINT ["/server"]
CMD ["-config", "/etc/notebookd/notebookd.yaml"]
