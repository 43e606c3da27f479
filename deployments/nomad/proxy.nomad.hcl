# Envoy and the agent that keeps it, on each client whose meta says marchproxy_proxy = "true".
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

variable "xds_server" {
  type        = string
  description = "host:port of the xDS servers, by a name that is in their certificates; xds.internal:18000."
}

variable "xdp_interface" {
  type        = string
  default     = ""
  description = "The clients' interface that rate limit policies guard; none where empty."
}

variable "xdp_mode" {
  type        = string
  default     = "native"
  description = "native or skb."
}

variable "loglevel" {
  type        = string
  default     = "info"
  description = "debug, info, warn or error."
}

job "marchproxy-proxy" {
  type        = "system"
  datacenters = var.datacenters
  priority    = 80

  # Whoever sets it says with it that this client lets containers have the capabilities below (docs/deploy-nomad.md).
  constraint {
    attribute = "${meta.marchproxy_proxy}"
    value     = "true"
  }

  # What the XDP program takes. semver, not version: a distribution's kernel is a prerelease by its name.
  constraint {
    attribute = "${attr.kernel.version}"
    operator  = "semver"
    value     = ">= 5.18.0"
  }

  # Older engines do not know the capabilities bpf and perfmon.
  constraint {
    attribute = "${attr.driver.docker.version}"
    operator  = "semver"
    value     = ">= 23.0.0"
  }

  # One client after another.
  update {
    max_parallel     = 1
    health_check     = "checks"
    min_healthy_time = "10s"
    healthy_deadline = "3m"
    auto_revert      = true
    stagger          = "30s"
  }

  group "proxy" {
    # The balancer before the proxies follows the service, and sends nothing here any more when the agent begins to drain.
    shutdown_delay = "10s"

    ephemeral_disk {
      sticky = true
      size   = 300
    }

    network {
      mode = "host"

      port "http" {
        static = 10000
      }
      port "admin" {
        static = 9901
      }
      port "agent" {
        static = 9902
      }
    }

    service {
      name     = "marchproxy-proxy"
      provider = "nomad"
      port     = "http"

      # Envoy says it: it has all that it is to serve.
      check {
        type     = "http"
        port     = "admin"
        path     = "/ready"
        interval = "5s"
        timeout  = "2s"
      }

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

    task "proxy" {
      driver = "docker"
      # Longer than DRAIN_TIMEOUT, so that requests in flight end by themselves.
      kill_timeout = "20s"

      config {
        image           = "${var.registry}/proxy-l7:${var.version}"
        network_mode    = "host"
        readonly_rootfs = true
        cap_drop        = ["all"]
        cap_add         = ["bpf", "net_admin", "net_bind_service", "perfmon"]
        security_opt    = ["no-new-privileges"]
        pids_limit      = 1024

        # The client's own, so that the program stays in force while no agent runs.
        mount {
          type   = "bind"
          source = "/sys/fs/bpf"
          target = "/sys/fs/bpf"
        }
        mount {
          type   = "tmpfs"
          target = "/run/marchproxy"
          tmpfs_options {
            size = 16777216
            mode = 448 # 0700
          }
        }
        mount {
          type   = "tmpfs"
          target = "/tmp"
          tmpfs_options {
            size = 67108864
          }
        }
      }

      env {
        XDS_SERVER     = var.xds_server
        NATS_URL       = var.nats_url
        NATS_NKEY_FILE = "${NOMAD_SECRETS_DIR}/nats.nkey"
        MARCHPROXY_TLS_CERT = "${NOMAD_SECRETS_DIR}/tls/cert.pem"
        MARCHPROXY_TLS_KEY  = "${NOMAD_SECRETS_DIR}/tls/key.pem"
        MARCHPROXY_TLS_CA   = "${NOMAD_SECRETS_DIR}/tls/ca.pem"
        MARCHPROXY_TLS_CRL  = "${NOMAD_SECRETS_DIR}/tls/crl.pem"

        CLUSTER_API_KEY_FILE = "${NOMAD_SECRETS_DIR}/cluster-key"
        MARCHPROXY_STATE_DIR = "${NOMAD_ALLOC_DIR}/data/agent"
        XDP_INTERFACE        = var.xdp_interface
        XDP_MODE             = var.xdp_mode

        # Nomad asks /ready at the client's address; what else is there changes nothing.
        ENVOY_ADMIN_ADDR = "${NOMAD_IP_admin}:9901"
        AGENT_HTTP_ADDR  = "${NOMAD_IP_agent}:9902"

        # Its certificate and its user at NATS are for this name.
        AGENT_ID = "${node.unique.name}"
        NODE_ID  = "${node.unique.name}"
        LOGLEVEL = var.loglevel
      }

      template {
        destination = "secrets/tls/cert.pem"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-proxy\" }}{{ index . (printf \"tls_cert_%s\" (env \"node.unique.name\")) }}{{ end }}"
        perms       = "0400"
        uid         = 0
        gid         = 0
        change_mode = "noop"
      }

      template {
        destination = "secrets/tls/key.pem"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-proxy\" }}{{ index . (printf \"tls_key_%s\" (env \"node.unique.name\")) }}{{ end }}"
        perms       = "0400"
        uid         = 0
        gid         = 0
        change_mode = "noop"
      }

      template {
        destination = "secrets/tls/ca.pem"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-proxy\" }}{{ .tls_ca }}{{ end }}"
        perms       = "0400"
        uid         = 0
        gid         = 0
        change_mode = "noop"
      }

      template {
        destination = "secrets/tls/crl.pem"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-proxy\" }}{{ .tls_crl }}{{ end }}"
        perms       = "0400"
        uid         = 0
        gid         = 0
        change_mode = "noop"
      }

      template {
        destination = "secrets/nats.nkey"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-proxy\" }}{{ index . (printf \"nats_nkey_%s\" (env \"node.unique.name\")) }}{{ end }}"
        perms       = "0400"
        uid         = 0
        gid         = 0
        change_mode = "restart"
      }

      template {
        destination = "secrets/cluster-key"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-proxy\" }}{{ .cluster_key }}{{ end }}"
        perms       = "0400"
        uid         = 0
        gid         = 0
        change_mode = "restart"
      }

      resources {
        cpu    = 1000
        memory = 1024
      }
    }
  }
}
