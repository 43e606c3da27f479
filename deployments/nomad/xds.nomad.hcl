# The xDS servers, which tell Envoys what they have to be.
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

job "marchproxy-xds" {
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

  group "xds" {
    count          = var.count
    shutdown_delay = "5s"

    # The last good state, with which a server begins before it has read anything. Without it the stream is read.
    ephemeral_disk {
      sticky  = true
      migrate = false
      size    = 1024
    }

    network {
      port "grpc" {
        static = 18000
        to     = 18000
      }
      port "http" {
        static = 19000
        to     = 19000
      }
    }

    service {
      name     = "marchproxy-xds"
      provider = "nomad"
      port     = "grpc"

      # An Envoy that comes before the server has read the configuration waits, and serves what it has.
      check {
        type     = "tcp"
        port     = "grpc"
        interval = "5s"
        timeout  = "2s"
      }
    }

    service {
      name     = "marchproxy-xds-http"
      provider = "nomad"
      port     = "http"

      check {
        type     = "tcp"
        port     = "http"
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

    task "xds" {
      driver       = "docker"
      kill_timeout = "15s"

      config {
        image           = "${var.registry}/xds-server:${var.version}"
        ports           = ["grpc", "http"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        pids_limit      = 1024
      }

      env {
        NATS_URL       = var.nats_url
        NATS_NKEY_FILE = "${NOMAD_SECRETS_DIR}/nats.nkey"
        MARCHPROXY_TLS_CERT = "${NOMAD_SECRETS_DIR}/tls/cert.pem"
        MARCHPROXY_TLS_KEY  = "${NOMAD_SECRETS_DIR}/tls/key.pem"
        MARCHPROXY_TLS_CA   = "${NOMAD_SECRETS_DIR}/tls/ca.pem"
        MARCHPROXY_TLS_CRL  = "${NOMAD_SECRETS_DIR}/tls/crl.pem"

        SECRET_KEY_FILE      = "${NOMAD_SECRETS_DIR}/secret-key"
        MARCHPROXY_STATE_DIR = "${NOMAD_ALLOC_DIR}/data/xds"

        # Its certificate and its user at NATS are for this name; distinct_hosts keeps it unique, beside a canary too.
        XDS_ID   = "${node.unique.name}"
        LOGLEVEL = var.loglevel
      }

      template {
        destination = "secrets/tls/cert.pem"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-xds\" }}{{ index . (printf \"tls_cert_%s\" (env \"node.unique.name\")) }}{{ end }}"
        perms       = "0400"
        uid         = 65532
        gid         = 65532
        change_mode = "noop"
      }

      template {
        destination = "secrets/tls/key.pem"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-xds\" }}{{ index . (printf \"tls_key_%s\" (env \"node.unique.name\")) }}{{ end }}"
        perms       = "0400"
        uid         = 65532
        gid         = 65532
        change_mode = "noop"
      }

      template {
        destination = "secrets/tls/ca.pem"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-xds\" }}{{ .tls_ca }}{{ end }}"
        perms       = "0400"
        uid         = 65532
        gid         = 65532
        change_mode = "noop"
      }

      template {
        destination = "secrets/tls/crl.pem"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-xds\" }}{{ .tls_crl }}{{ end }}"
        perms       = "0400"
        uid         = 65532
        gid         = 65532
        change_mode = "noop"
      }

      template {
        destination = "secrets/nats.nkey"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-xds\" }}{{ index . (printf \"nats_nkey_%s\" (env \"node.unique.name\")) }}{{ end }}"
        perms       = "0400"
        uid         = 65532
        gid         = 65532
        change_mode = "restart"
      }

      template {
        destination = "secrets/secret-key"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-xds\" }}{{ .secret_key }}{{ end }}"
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
