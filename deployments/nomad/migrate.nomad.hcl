# Brings the database to this version, and ends: before the first api, and before each upgrade.
# docs/deploy-nomad.md tells what has to be there before: variables, names, what the clients allow.
variable "version" {
  type        = string
  default     = "dev"
  description = "The images' tag."
}

variable "registry" {
  type        = string
  default     = "marchproxy"
  description = "Where the images are: REGISTRY/api-server and so on."
}

variable "datacenters" {
  type    = list(string)
  default = ["*"]
}

variable "database" {
  type        = string
  description = "PostgreSQL's host:port; its certificate is for that host."
}

job "marchproxy-migrate" {
  type        = "batch"
  datacenters = var.datacenters

  group "migrate" {
    reschedule {
      attempts  = 0
      unlimited = false
    }

    restart {
      attempts = 3
      delay    = "5s"
      interval = "5m"
      mode     = "fail"
    }

    task "migrate" {
      driver = "docker"

      config {
        image           = "${var.registry}/api-server:${var.version}"
        args            = ["migrate"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        pids_limit      = 1024
      }

      env {
        DATABASE_URL        = "postgresql://marchproxy@${var.database}/marchproxy?sslmode=verify-full&sslrootcert=${NOMAD_SECRETS_DIR}/tls/ca.pem&sslcert=${NOMAD_SECRETS_DIR}/tls/cert.pem&sslkey=${NOMAD_SECRETS_DIR}/tls/key.pem"
      }

      template {
        destination = "secrets/tls/cert.pem"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-migrate\" }}{{ .tls_cert }}{{ end }}"
        perms       = "0400"
        uid         = 65532
        gid         = 65532
        change_mode = "noop"
      }

      template {
        destination = "secrets/tls/key.pem"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-migrate\" }}{{ .tls_key }}{{ end }}"
        perms       = "0400"
        uid         = 65532
        gid         = 65532
        change_mode = "noop"
      }

      template {
        destination = "secrets/tls/ca.pem"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-migrate\" }}{{ .tls_ca }}{{ end }}"
        perms       = "0400"
        uid         = 65532
        gid         = 65532
        change_mode = "noop"
      }

      resources {
        cpu    = 200
        memory = 128
      }
    }
  }
}
