# A lake and an endpoint on Google Cloud.
#
#   terraform init && terraform apply -var project=acme -var domain=example.com

terraform {
  required_version = ">= 1.9"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.50"
    }
  }
}

variable "project" {
  description = "Project that holds everything."
  type        = string
}

variable "region" {
  description = "Region of the lake and of the primary gateway."
  type        = string
  default     = "europe-west3"
}

variable "domain" {
  description = "Domain whose managed zone is made here."
  type        = string
}

provider "google" {
  project = var.project
  region  = var.region
}

resource "google_dns_managed_zone" "shop" {
  name        = replace(var.domain, ".", "-")
  dns_name    = "${var.domain}."
  description = "millrace endpoint"

  dnssec_config {
    state = "on"
  }
}

module "endpoint" {
  source = "../../modules/endpoint-gcp"

  project       = var.project
  managed_zone  = google_dns_managed_zone.shop.name
  name          = "ingest.${var.domain}"
  trickle_ratio = 0.01

  endpoints = {
    main   = { address = "192.0.2.10", location = var.region }
    backup = { address = "198.51.100.10", location = "europe-west4", tier = "secondary" }
  }
}

module "lake" {
  source = "../../modules/lake-gcp"

  project  = var.project
  bucket   = "${var.project}-millrace-lake"
  location = var.region
  readers  = ["group:analysts@${var.domain}"]
  labels   = { project = "millrace" }

  workload_identities = {
    sink  = ["millrace/sink-iceberg"]
    batch = ["millrace/batch"]
  }
}

output "url" {
  value = module.endpoint.url
}

output "name_servers" {
  description = "To be entered at the registrar."
  value       = google_dns_managed_zone.shop.name_servers
}

output "warehouse" {
  description = "Root of the Iceberg tables."
  value       = module.lake.warehouse
}

output "bigquery" {
  value = module.lake.bigquery
}
