mock_provider "aws" {}

variables {
  zone_id = "Z123"
  name    = "ingest.example.com"
  endpoints = {
    fra1 = { tier = "primary", weight = 90, host = "fra1.gateways.example.com", addresses = ["192.0.2.10", "192.0.2.11"] }
    fra2 = { tier = "primary", weight = 10, host = "fra2.gateways.example.com", load_balancer = { dns_name = "nlb.example.com", zone_id = "ZLB" } }
    dub1 = { tier = "secondary", host = "dub1.gateways.example.com", addresses = ["198.51.100.10"] }
  }
}

run "traffic_goes_by_weight_within_a_tier" {
  command = apply
  assert {
    condition     = { for k, r in aws_route53_record.endpoint : k => r.weighted_routing_policy[0].weight } == { fra1 = 90, fra2 = 10, dub1 = 100 }
    error_message = "weights"
  }
  assert {
    condition     = { for k, r in aws_route53_record.endpoint : k => r.name } == { fra1 = "primary.ingest.example.com", fra2 = "primary.ingest.example.com", dub1 = "secondary.ingest.example.com" }
    error_message = "names of the tiers"
  }
  assert {
    condition     = aws_route53_record.endpoint["fra1"].ttl == 30 && aws_route53_record.endpoint["fra1"].records == toset(["192.0.2.10", "192.0.2.11"]) && length(aws_route53_record.endpoint["fra1"].alias) == 0
    error_message = "addresses become plain records"
  }
  assert {
    condition     = aws_route53_record.endpoint["fra2"].alias[0].name == "nlb.example.com" && aws_route53_record.endpoint["fra2"].alias[0].zone_id == "ZLB" && aws_route53_record.endpoint["fra2"].alias[0].evaluate_target_health
    error_message = "a load balancer becomes an alias"
  }
}

run "the_name_fails_over_between_tiers" {
  command = apply
  assert {
    condition     = { for k, r in aws_route53_record.tier : k => [r.name, r.failover_routing_policy[0].type, r.alias[0].name, r.alias[0].evaluate_target_health] } == { primary = ["ingest.example.com", "PRIMARY", "primary.ingest.example.com", true], secondary = ["ingest.example.com", "SECONDARY", "secondary.ingest.example.com", true] }
    error_message = "failover records"
  }
  assert {
    condition     = output.url == "https://ingest.example.com"
    error_message = "url"
  }
}

run "every_endpoint_is_asked_for_its_own_health" {
  command = apply
  assert {
    condition     = alltrue([for k, c in aws_route53_health_check.endpoint : c.resource_path == "/routez" && c.type == "HTTPS" && c.port == 443 && c.enable_sni && c.fqdn == var.endpoints[k].host])
    error_message = "health checks"
  }
  assert {
    condition     = alltrue([for k, r in aws_route53_record.endpoint : r.health_check_id == aws_route53_health_check.endpoint[k].id])
    error_message = "each record has its own check"
  }
  assert {
    condition     = length(aws_cloudwatch_metric_alarm.unhealthy) == 0
    error_message = "no alarms unless somebody is to be told"
  }
}

run "alarms_are_where_the_metrics_are" {
  command = apply
  variables {
    alarm_actions = ["arn:aws:sns:us-east-1:123456789012:pager"]
  }
  assert {
    condition     = length(aws_cloudwatch_metric_alarm.unhealthy) == 3 && alltrue([for a in aws_cloudwatch_metric_alarm.unhealthy : a.region == "us-east-1" && a.treat_missing_data == "breaching"])
    error_message = "alarms"
  }
}

run "one_tier_will_do" {
  command = apply
  variables {
    endpoints = { only = { tier = "primary", host = "g.example.com", addresses = ["192.0.2.10"] } }
  }
  assert {
    condition     = keys(aws_route53_record.tier) == ["primary"]
    error_message = "no record without endpoints behind it"
  }
}

run "a_place_without_an_address_is_refused" {
  command = plan
  variables {
    endpoints = { only = { tier = "primary", host = "g.example.com" } }
  }
  expect_failures = [var.endpoints]
}

run "an_unknown_tier_is_refused" {
  command = plan
  variables {
    endpoints = {
      a = { tier = "primary", host = "a.example.com", addresses = ["192.0.2.10"] }
      b = { tier = "backup", host = "b.example.com", addresses = ["192.0.2.11"] }
    }
  }
  expect_failures = [var.endpoints]
}

run "the_shared_name_is_no_place" {
  command = plan
  variables {
    endpoints = { a = { tier = "primary", host = "ingest.example.com", addresses = ["192.0.2.10"] } }
  }
  expect_failures = [var.endpoints]
}

run "a_long_time_to_live_is_refused" {
  command = plan
  variables {
    ttl = 3600
  }
  expect_failures = [var.ttl]
}

run "an_interval_that_route53_does_not_have_is_refused" {
  command = plan
  variables {
    health = { request_interval = 15 }
  }
  expect_failures = [var.health]
}
