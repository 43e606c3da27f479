# An example to begin with: one NATS server with its store on one client. In production three of them, on three clients
# (docs/deploy-compose.md, "Two of everything", has their configuration).
variable "image" {
  type    = string
  default = "nats:2.12.15-alpine@sha256:b270f5e2428354c0335612694d7dd2fb588148e567a5757fdff325ef9c9332e6"
}

variable "datacenters" {
  type    = list(string)
  default = ["*"]
}

job "marchproxy-nats" {
  type        = "service"
  datacenters = var.datacenters

  group "nats" {
    count = 1

    # The client that has it keeps the store: host_volume "marchproxy-nats" { path = "/var/lib/marchproxy/nats" }
    volume "data" {
      type   = "host"
      source = "marchproxy-nats"
    }

    network {
      port "nats" {
        static = 4222
        to     = 4222
      }
    }

    service {
      name     = "marchproxy-nats"
      provider = "nomad"
      port     = "nats"

      check {
        type     = "tcp"
        interval = "5s"
        timeout  = "2s"
      }
    }

    task "nats" {
      driver       = "docker"
      kill_timeout = "30s"

      config {
        image           = var.image
        entrypoint      = ["nats-server", "-c", "/secrets/nats.conf"]
        ports           = ["nats"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        pids_limit      = 1024
      }

      volume_mount {
        volume      = "data"
        destination = "/data"
      }

      template {
        destination = "secrets/nats.conf"
        perms       = "0400"
        change_mode = "restart"
        data        = <<-CONF
          server_name: nats-1
          listen: "0.0.0.0:4222"
          max_payload: 64MB
          jetstream {
            store_dir: "/data"
            # A message counts as stored when it is on the disk.
            sync_interval: always
          }
          tls {
            cert_file: "/secrets/cert.pem"
            key_file: "/secrets/key.pem"
            ca_file: "/secrets/ca.pem"
            verify: true
          }
          include "users.conf"
        CONF
      }

      # A part that is issued or revoked changes the users: NATS reads them again, and no connection ends.
      template {
        destination   = "secrets/users.conf"
        data          = "{{ with nomadVar \"nomad/jobs/marchproxy-nats\" }}{{ .users }}{{ end }}"
        perms         = "0400"
        change_mode   = "signal"
        change_signal = "SIGHUP"
      }

      template {
        destination   = "secrets/cert.pem"
        data          = "{{ with nomadVar \"nomad/jobs/marchproxy-nats\" }}{{ .tls_cert }}{{ end }}"
        perms         = "0400"
        change_mode   = "signal"
        change_signal = "SIGHUP"
      }

      template {
        destination   = "secrets/key.pem"
        data          = "{{ with nomadVar \"nomad/jobs/marchproxy-nats\" }}{{ .tls_key }}{{ end }}"
        perms         = "0400"
        change_mode   = "signal"
        change_signal = "SIGHUP"
      }

      template {
        destination   = "secrets/ca.pem"
        data          = "{{ with nomadVar \"nomad/jobs/marchproxy-nats\" }}{{ .tls_ca }}{{ end }}"
        perms         = "0400"
        change_mode   = "signal"
        change_signal = "SIGHUP"
      }

      resources {
        cpu    = 500
        memory = 512
      }
    }
  }
}
