module bos.hpe.com/gitops

go 1.26.0
