# One name for all producers, answered by Cloud DNS according to the health of the places behind it.

locals {
  primary   = { for k, e in var.endpoints : k => e if e.tier == "primary" }
  secondary = { for k, e in var.endpoints : k => e if e.tier == "secondary" }
  # Secondary endpoints by region: of several healthy ones the nearest answers.
  backups = { for region in distinct([for e in local.secondary : e.location]) : region => [for e in local.secondary : e.address if e.location == region] }
}

resource "google_compute_health_check" "endpoint" {
  project             = var.project
  name                = "${replace(var.name, ".", "-")}-routez"
  description         = "Whether a gateway of ${var.name} takes new traffic."
  source_regions      = var.health.regions
  check_interval_sec  = var.health.interval
  timeout_sec         = var.health.timeout
  healthy_threshold   = var.health.healthy_threshold
  unhealthy_threshold = var.health.unhealthy_threshold

  https_health_check {
    host         = var.name
    port         = var.health.port
    request_path = var.health.path
  }

  log_config {
    enable = true
  }
}

resource "google_dns_record_set" "endpoint" {
  project      = var.project
  managed_zone = var.managed_zone
  name         = "${var.name}."
  type         = "A"
  ttl          = var.ttl

  routing_policy {
    health_check = google_compute_health_check.endpoint.id

    dynamic "primary_backup" {
      for_each = var.policy == "failover" ? [1] : []
      content {
        trickle_ratio = var.trickle_ratio

        primary {
          external_endpoints = [for e in local.primary : e.address]
        }

        dynamic "backup_geo" {
          for_each = local.backups
          content {
            location = backup_geo.key
            health_checked_targets {
              external_endpoints = backup_geo.value
            }
          }
        }
      }
    }

    dynamic "wrr" {
      for_each = var.policy == "weighted" ? var.endpoints : {}
      content {
        weight = wrr.value.weight
        health_checked_targets {
          external_endpoints = [wrr.value.address]
        }
      }
    }
  }
}
