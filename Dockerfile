# The image of operator, agent and webhook: three programs, the C library and whom to trust. No shell, no package manager.
#
#   docker build --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" -t REGISTRY/bos-operator:0.1.0 .
#
# `make image` makes the same without an engine. Both call the scripts of hack/image, and hack/image/build.sh reads the last
# stage of this file, so its instructions must stay on one line each and in the form they have.

# Its Debian is that of the image, so that the C library is the one the programs were linked with.
ARG BUILDER=docker.io/library/rust:1.95-bookworm
FROM ${BUILDER} AS build
WORKDIR /src
COPY . .
RUN hack/image/release.sh /out/programs/usr/bin
RUN hack/image/rootfs.sh /out/root

FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
# The layer that rarely changes comes first.
COPY --from=build /out/root/ /
COPY --from=build /out/programs/ /
ENV PATH=/usr/bin
# As in the manifests; a number, so that the kubelet can see that it is not root.
USER 65532:65532
ENTRYPOINT ["/usr/bin/bos-operator"]
LABEL org.opencontainers.image.title="bos-operator"
LABEL org.opencontainers.image.description="Boots, reboots and shuts down the nodes of an HPE Cray EX system: operator, agent (bos-boa) and admission (bos-webhook)"
LABEL org.opencontainers.image.licenses="MIT"
LABEL org.opencontainers.image.version="${VERSION}"
LABEL org.opencontainers.image.revision="${REVISION}"
