# The api: it alone writes the configuration.
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

variable "nats_url" {
  type        = string
  description = "tls://nats.internal:4222; several of one cluster with commas."
}

variable "count" {
  type        = number
  default     = 2
  description = "How many, each on a client of its own."
}

variable "canary" {
  type        = number
  default     = 1
  description = "How many of the new version run beside the old ones before these are replaced. The ports are fixed, so that takes as many more clients; 0 replaces one after another."
}

variable "loglevel" {
  type        = string
  default     = "info"
  description = "debug, info, warn or error."
}

job "marchproxy-api" {
  type        = "service"
  datacenters = var.datacenters

  constraint {
    operator = "distinct_hosts"
    value    = "true"
  }

  update {
    max_parallel      = 1
    health_check      = "checks"
    min_healthy_time  = "10s"
    healthy_deadline  = "3m"
    progress_deadline = "10m"
    auto_revert       = true
    canary            = var.canary
    auto_promote      = var.canary > 0
  }

  group "api" {
    count = var.count

    # Whoever follows the service goes to another one before this one ends.
    shutdown_delay = "5s"

    network {
      port "api" {
        static = 8000
        to     = 8000
      }
    }

    service {
      name     = "marchproxy-api"
      provider = "nomad"
      port     = "api"

      # The port opens when the api has read its database. Nomad has no certificate to show, so it cannot ask /readyz.
      check {
        type     = "tcp"
        port     = "api"
        interval = "5s"
        timeout  = "2s"
      }
    }

    restart {
      attempts = 10
      delay    = "2s"
      interval = "2m"
      mode     = "delay"
    }

    task "api" {
      driver       = "docker"
      kill_timeout = "15s"

      config {
        image           = "${var.registry}/api-server:${var.version}"
        ports           = ["api"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        pids_limit      = 1024
      }

      env {
        DATABASE_URL        = "postgresql://marchproxy@${var.database}/marchproxy?sslmode=verify-full&sslrootcert=${NOMAD_SECRETS_DIR}/tls/ca.pem&sslcert=${NOMAD_SECRETS_DIR}/tls/cert.pem&sslkey=${NOMAD_SECRETS_DIR}/tls/key.pem"
        NATS_URL            = var.nats_url
        NATS_NKEY_FILE      = "${NOMAD_SECRETS_DIR}/nats.nkey"
        MARCHPROXY_TLS_CERT = "${NOMAD_SECRETS_DIR}/tls/cert.pem"
        MARCHPROXY_TLS_KEY  = "${NOMAD_SECRETS_DIR}/tls/key.pem"
        MARCHPROXY_TLS_CA   = "${NOMAD_SECRETS_DIR}/tls/ca.pem"
        MARCHPROXY_TLS_CRL  = "${NOMAD_SECRETS_DIR}/tls/crl.pem"

        SECRET_KEY_FILE      = "${NOMAD_SECRETS_DIR}/secret-key"
        CLUSTER_API_KEY_FILE = "${NOMAD_SECRETS_DIR}/cluster-key"
        API_FIRST_TOKEN_FILE = "${NOMAD_SECRETS_DIR}/admin-token"
        LOGLEVEL             = var.loglevel
      }

      template {
        destination = "secrets/tls/cert.pem"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-api\" }}{{ .tls_cert }}{{ end }}"
        perms       = "0400"
        uid         = 65532
        gid         = 65532
        change_mode = "noop"
      }

      template {
        destination = "secrets/tls/key.pem"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-api\" }}{{ .tls_key }}{{ end }}"
        perms       = "0400"
        uid         = 65532
        gid         = 65532
        change_mode = "noop"
      }

      template {
        destination = "secrets/tls/ca.pem"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-api\" }}{{ .tls_ca }}{{ end }}"
        perms       = "0400"
        uid         = 65532
        gid         = 65532
        change_mode = "noop"
      }

      template {
        destination = "secrets/tls/crl.pem"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-api\" }}{{ .tls_crl }}{{ end }}"
        perms       = "0400"
        uid         = 65532
        gid         = 65532
        change_mode = "noop"
      }

      template {
        destination = "secrets/nats.nkey"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-api\" }}{{ .nats_nkey }}{{ end }}"
        perms       = "0400"
        uid         = 65532
        gid         = 65532
        change_mode = "restart"
      }

      template {
        destination = "secrets/secret-key"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-api\" }}{{ .secret_key }}{{ end }}"
        perms       = "0400"
        uid         = 65532
        gid         = 65532
        change_mode = "restart"
      }

      template {
        destination = "secrets/cluster-key"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-api\" }}{{ .cluster_key }}{{ end }}"
        perms       = "0400"
        uid         = 65532
        gid         = 65532
        change_mode = "restart"
      }

      template {
        destination = "secrets/admin-token"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-api\" }}{{ .admin_token }}{{ end }}"
        perms       = "0400"
        uid         = 65532
        gid         = 65532
        change_mode = "restart"
      }

      resources {
        cpu    = 500
        memory = 512
      }
    }
  }
}
