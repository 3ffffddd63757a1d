output "address" {
  description = "Public address; stays when the bastion is replaced."
  value       = aws_eip.bastion.public_ip
}
