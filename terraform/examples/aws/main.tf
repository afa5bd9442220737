# An endpoint on AWS: ingest.<domain>, in front of the load balancers of two regions and, should both be gone, of gateways elsewhere.
#
#   terraform init && terraform apply -var domain=example.com

terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.25"
    }
  }
}

variable "region" {
  description = "Region of the provider; Route 53 itself has none."
  type        = string
  default     = "eu-central-1"
}

variable "domain" {
  description = "Domain whose hosted zone is made here."
  type        = string
}

variable "pager" {
  description = "SNS topic in us-east-1 that is told of unhealthy endpoints; null: nobody is."
  type        = string
  default     = null
}

provider "aws" {
  region = var.region

  default_tags {
    tags = { project = "millrace" }
  }
}

resource "aws_route53_zone" "shop" {
  name    = var.domain
  comment = "millrace endpoint"
}

module "endpoint" {
  source = "../../modules/endpoint-aws"

  zone_id       = aws_route53_zone.shop.zone_id
  name          = "ingest.${var.domain}"
  alarm_actions = var.pager[*]

  endpoints = {
    # 9 of 10 requests to the first cluster, 1 of 10 to the one that is being moved to.
    fra-a = { tier = "primary", weight = 90, host = "fra-a.gateways.${var.domain}", addresses = ["192.0.2.10"] }
    fra-b = { tier = "primary", weight = 10, host = "fra-b.gateways.${var.domain}", addresses = ["192.0.2.20"] }
    dub   = { tier = "secondary", host = "dub.gateways.${var.domain}", addresses = ["198.51.100.10"] }
  }
}

output "url" {
  value = module.endpoint.url
}

output "name_servers" {
  description = "To be entered at the registrar."
  value       = aws_route53_zone.shop.name_servers
}
