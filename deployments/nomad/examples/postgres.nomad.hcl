# An example to begin with: one PostgreSQL with its data on one client. In production a database that somebody looks after.
variable "image" {
  type    = string
  default = "postgres:17-bookworm@sha256:051f7b7b3abdd564d5d1bd1e8c4b9c1b6e77087d1dd22020ede611c096a272e0"
}

variable "datacenters" {
  type    = list(string)
  default = ["*"]
}

job "marchproxy-postgres" {
  type        = "service"
  datacenters = var.datacenters

  group "postgres" {
    count = 1

    # The client that has it keeps the data: host_volume "marchproxy-postgres" { path = "/var/lib/marchproxy/postgres" },
    # a directory of the user 999.
    volume "data" {
      type   = "host"
      source = "marchproxy-postgres"
    }

    network {
      port "postgres" {
        static = 5432
        to     = 5432
      }
    }

    service {
      name     = "marchproxy-postgres"
      provider = "nomad"
      port     = "postgres"

      check {
        type     = "tcp"
        interval = "5s"
        timeout  = "2s"
      }
    }

    task "postgres" {
      driver       = "docker"
      user         = "999:999"
      kill_signal  = "SIGINT"
      kill_timeout = "60s"

      config {
        image = var.image
        args = [
          "-c", "hba_file=/secrets/pg_hba.conf", "-c", "ssl=on", "-c", "ssl_cert_file=/secrets/cert.pem",
          "-c", "ssl_key_file=/secrets/key.pem", "-c", "ssl_ca_file=/secrets/ca.pem",
        ]
        ports           = ["postgres"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        pids_limit      = 1024
        shm_size        = 134217728

        mount {
          type   = "bind"
          source = "local/init.sql"
          target = "/docker-entrypoint-initdb.d/init.sql"
        }
        mount {
          type   = "tmpfs"
          target = "/run/postgresql"
        }
        mount {
          type   = "tmpfs"
          target = "/tmp"
        }
      }

      env {
        POSTGRES_PASSWORD_FILE = "${NOMAD_SECRETS_DIR}/password"
      }

      volume_mount {
        volume      = "data"
        destination = "/var/lib/postgresql/data"
      }

      # The api's user owns its database, and nothing else.
      template {
        destination = "local/init.sql"
        data        = "CREATE ROLE marchproxy LOGIN;\nCREATE DATABASE marchproxy OWNER marchproxy;\n"
        change_mode = "noop"
      }

      # The api comes with its certificate, and nothing else comes over a network.
      template {
        destination = "secrets/pg_hba.conf"
        data        = "hostssl marchproxy marchproxy all cert\nlocal all postgres peer\n"
        uid         = 999
        gid         = 999
        perms       = "0400"
        change_mode = "noop"
      }

      template {
        destination = "secrets/password"
        data        = "{{ with nomadVar \"nomad/jobs/marchproxy-postgres\" }}{{ .password }}{{ end }}"
        uid         = 999
        gid         = 999
        perms       = "0400"
        change_mode = "noop"
      }

      template {
        destination   = "secrets/cert.pem"
        data          = "{{ with nomadVar \"nomad/jobs/marchproxy-postgres\" }}{{ .tls_cert }}{{ end }}"
        uid           = 999
        gid           = 999
        perms         = "0400"
        change_mode   = "signal"
        change_signal = "SIGHUP"
      }

      template {
        destination   = "secrets/key.pem"
        data          = "{{ with nomadVar \"nomad/jobs/marchproxy-postgres\" }}{{ .tls_key }}{{ end }}"
        uid           = 999
        gid           = 999
        perms         = "0400"
        change_mode   = "signal"
        change_signal = "SIGHUP"
      }

      template {
        destination   = "secrets/ca.pem"
        data          = "{{ with nomadVar \"nomad/jobs/marchproxy-postgres\" }}{{ .tls_ca }}{{ end }}"
        uid           = 999
        gid           = 999
        perms         = "0400"
        change_mode   = "signal"
        change_signal = "SIGHUP"
      }

      resources {
        cpu    = 1000
        memory = 1024
      }
    }
  }
}
