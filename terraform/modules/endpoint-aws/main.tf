# One name for all producers. Two levels of records: within a tier the healthy endpoints share traffic by weight; between the tiers Route 53 fails over.
#
#   name          failover alias   PRIMARY   -> primary.name
#                                  SECONDARY -> secondary.name
#   primary.name  weighted         one record an endpoint, each with its health check

locals {
  tiers = toset([for e in var.endpoints : e.tier])
}

resource "aws_route53_health_check" "endpoint" {
  for_each = var.endpoints

  reference_name    = substr("${each.key}-millrace", 0, 27)
  type              = "HTTPS"
  fqdn              = each.value.host
  port              = var.health.port
  resource_path     = var.health.path
  request_interval  = var.health.request_interval
  failure_threshold = var.health.failure_threshold
  regions           = var.health.regions
  enable_sni        = true
  measure_latency   = true
  tags              = merge(var.tags, { Name = "${var.name} ${each.key}" })
}

resource "aws_route53_record" "endpoint" {
  for_each = var.endpoints

  zone_id         = var.zone_id
  name            = "${each.value.tier}.${var.name}"
  type            = "A"
  ttl             = each.value.load_balancer == null ? var.ttl : null
  records         = each.value.load_balancer == null ? each.value.addresses : null
  set_identifier  = each.key
  health_check_id = aws_route53_health_check.endpoint[each.key].id

  weighted_routing_policy {
    weight = each.value.weight
  }

  dynamic "alias" {
    for_each = each.value.load_balancer[*]
    content {
      name                   = alias.value.dns_name
      zone_id                = alias.value.zone_id
      evaluate_target_health = true
    }
  }
}

resource "aws_route53_record" "tier" {
  for_each = local.tiers

  zone_id        = var.zone_id
  name           = var.name
  type           = "A"
  set_identifier = each.key

  failover_routing_policy {
    type = upper(each.key)
  }

  alias {
    name                   = "${each.key}.${var.name}"
    zone_id                = var.zone_id
    evaluate_target_health = true
  }

  depends_on = [aws_route53_record.endpoint]
}

resource "aws_cloudwatch_metric_alarm" "unhealthy" {
  for_each = length(var.alarm_actions) > 0 ? var.endpoints : {}

  region              = "us-east-1" # where Route 53 keeps its metrics
  alarm_name          = "millrace-endpoint-${each.key}-unhealthy"
  alarm_description   = "${each.value.host}${var.health.path} does not answer 200: ${each.value.tier} endpoint ${each.key} of ${var.name} gets no traffic."
  namespace           = "AWS/Route53"
  metric_name         = "HealthCheckStatus"
  dimensions          = { HealthCheckId = aws_route53_health_check.endpoint[each.key].id }
  statistic           = "Minimum"
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  period              = 60
  evaluation_periods  = 1
  treat_missing_data  = "breaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags
}
