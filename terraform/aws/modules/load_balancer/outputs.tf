output "address" {
  description = "DNS name."
  value       = aws_lb.front.dns_name
}

output "zone_id" {
  description = "Hosted zone of the DNS name, for aliases."
  value       = aws_lb.front.zone_id
}
